"""Where the local server keeps groups, persons and faces.

::

    opening.py     a path or a URL -> a storage
    base.py        what a storage can do, and what an engine under it can do
    storage.py     groups, persons and faces over any engine
    rows.py        what single statements say
    gallery.py     the faces of a group in memory; galleries.py keeps them, ranking.py compares with them
    signatures.py  signatures that were used
    copying.py     from one storage into another
    sqlite/        the engine for one machine: a file, or memory
    postgres/      the engine for many processes on many machines
"""
