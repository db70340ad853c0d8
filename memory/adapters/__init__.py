"""Adapters of a cube: small files of weights that were trained on its memories. `table` holds which versions there are and what
became of them, `files` the folder with the files and their manifests. Knows neither how they are trained nor how they are used.
"""
