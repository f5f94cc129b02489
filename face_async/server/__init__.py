"""The local server: the same endpoints on this machine, with real storage and real recognition.

Needs the extra ``server``; the extra ``recognition`` adds real face recognition.
"""

from face_async.limits import ServiceLimits
from face_async.server.app import create_app
from face_async.server.background import Certificate, RunningServer, serve, serve_in_background
from face_async.server.bounds.admission import RequestLimits
from face_async.server.bounds.connections import ConnectionLimits
from face_async.server.faults import Fault, Faults
from face_async.server.guard import Account
from face_async.server.operations.accounts import AccountsFile
from face_async.server.processes import serve_workers
from face_async.server.recognition import Face, Recognizer, recognizer
from face_async.server.settings import ServerSettings, create_app_from_env
from face_async.server.storage.base import StoreError
from face_async.server.storage.copying import back_up_storage, copy_storage
from face_async.server.storage.opening import open_storage
from face_async.server.storage.sqlite.store import Store
from face_async.server.storage.storage import Storage

__all__ = [
    "Account",
    "AccountsFile",
    "Certificate",
    "ConnectionLimits",
    "Face",
    "Fault",
    "Faults",
    "Recognizer",
    "RequestLimits",
    "RunningServer",
    "ServerSettings",
    "ServiceLimits",
    "Storage",
    "Store",
    "StoreError",
    "back_up_storage",
    "copy_storage",
    "create_app",
    "create_app_from_env",
    "open_storage",
    "recognizer",
    "serve",
    "serve_in_background",
    "serve_workers",
]
