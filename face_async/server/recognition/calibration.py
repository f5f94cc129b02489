"""How alike two faces are, from how far apart their embeddings are: the one table that gives numbers their meaning.

Measured with the networks of this package on three sets of photographs that are public, 1,121 pictures of 118 people:
6,784 pairs of one person and 620,976 pairs of strangers, most of them white adults.

======== ========== ======================================================== ==============================
distance similarity pairs of one person up to here                           pairs of strangers up to here
======== ========== ======================================================== ==============================
0.20     99         copies of one photograph; the closest different          none
                    photographs of one person lie 0.25 apart
0.90     90         97.5 % (94.7 % of photographs taken years apart)         none
1.00     75         99.2 % (98.7 %)                                          1.6 in 10,000
======== ========== ======================================================== ==============================

Of 408 further people, among them many South and East Asians, Africans, children and old people, none came within 1.06
of any of 18 others. Their own pairs were not told apart from strangers', so for them 90 and 75 are bounded only: no
more than 3.7 and 6.3 pairs in 10,000 reach them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from face_async.limits import ALMOST_THE_SAME, SAME_PERSON, SURELY_THE_SAME

_DISTANCES = (0.0, 0.20, 0.90, 1.00, 1.41)
_SIMILARITIES = (100.0, ALMOST_THE_SAME, SURELY_THE_SAME, SAME_PERSON, 0.0)


def similarities_at(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return similarities, 0 to 100, of faces at Euclidean distances, 0 to 2; straight lines between the table's."""
    return np.interp(distances, _DISTANCES, _SIMILARITIES)
