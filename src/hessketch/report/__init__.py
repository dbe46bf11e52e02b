"""One self-contained page a profile for a reviewer: claims with their figures, studies, cost, provenance, commands."""
