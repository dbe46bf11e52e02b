"""Studies: what a paper derives from the pipeline's tables. Frames in, frames out; no files, no drawing."""
