"""Where the local server keeps groups, persons and faces.

::

    opening.py     a path or a URL -> a storage
    names.py       what is a path, and what a URL
    base.py        what an engine can do, and what a storage answers
    storage.py     groups, persons and faces over any engine
    rows.py        what single statements say
    gallery.py     the faces of a group in memory; galleries.py keeps them, ranking.py compares with them
    writes.py      writes that wait, and are done together
    signatures.py  signatures that were used
    copying.py     from one storage into another
    sqlite/        the engine for one machine: a file, or memory
    postgres/      the engine for many processes on many machines
"""
