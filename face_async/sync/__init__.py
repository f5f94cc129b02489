"""The session for programs without async: scripts, notebooks, worker processes.

::

    from face_async.sync import FaceSession

    with FaceSession.from_env() as session:
        print(session.identify("staff", "probe.jpg").best)
        with session.add_faces(("ada", path) for path in Path("ada").iterdir()) as outcomes:
            for outcome in outcomes:
                print(outcome.item, outcome.error)
"""

from face_async.sync.outcomes import Outcomes
from face_async.sync.session import FaceSession

__all__ = ["FaceSession", "Outcomes"]
