"""Spectra of deep-network Hessians, with and without sketched distributed training.

Importing the package is cheap: nothing here imports torch. Import what you need from
`hessketch.linalg`, `hessketch.curvature`, `hessketch.data`, `hessketch.networks`, `hessketch.training`.
"""
