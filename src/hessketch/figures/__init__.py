"""Figures: tables in, matplotlib figures out. Nothing is computed here and no file is touched."""
