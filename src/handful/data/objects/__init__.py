"""Sources that are no folder on this machine: buckets, web addresses, lists, archives, tables.

fsspec has the protocols and the credentials; pyarrow, `zipfile` and `tarfile` have the formats.
Here they become names with a way to read their bytes: `find` lists a source, `Objects` reads it.
"""
