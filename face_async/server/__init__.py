"""The local server: the same endpoints on this machine, with real storage and real recognition.

Needs the extra ``server``; the extra ``recognition`` adds real face recognition.
"""

from face_async.limits import ServiceLimits
from face_async.server.app import create_app
from face_async.server.background import Certificate, RunningServer, serve, serve_in_background
from face_async.server.bounds.connections import ConnectionLimits
from face_async.server.faults import Fault, Faults
from face_async.server.guard import Account
from face_async.server.operations.accounts import AccountsFile
from face_async.server.recognition import Face, Recognizer, recognizer
from face_async.server.storage.schema import StoreError
from face_async.server.storage.sqlite import Store

__all__ = [
    "Account",
    "AccountsFile",
    "Certificate",
    "ConnectionLimits",
    "Face",
    "Fault",
    "Faults",
    "Recognizer",
    "RunningServer",
    "ServiceLimits",
    "Store",
    "StoreError",
    "create_app",
    "recognizer",
    "serve",
    "serve_in_background",
]
