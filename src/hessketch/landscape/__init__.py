"""The landscape of a loss: exact spectra of small networks (Sagun et al. 2017)."""
