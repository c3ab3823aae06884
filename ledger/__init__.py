"""The contract between training, sweeps and analysis: the files of runs, studies and launches.

Standard library only. Everything that one package writes and another one reads is read and written
through the classes here, so that names, schemas and conventions stand once.
"""
