"""The page for people: it calls the same endpoints as any program, and signs the calls on this side."""

from face_async.server.page.access import PageAccess
from face_async.server.page.routes import Page

__all__ = ["Page", "PageAccess"]
