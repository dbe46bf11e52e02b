"""Writes the profile's full config, defaults filled, beside its results."""

import argparse
import json

from hessketch.records import write_record

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("config", type=json.loads, help="the config as JSON text")
parser.add_argument("--output", required=True, help="JSON file to write")

if __name__ == "__main__":
    arguments = parser.parse_args()
    write_record(arguments.config, arguments.output)
