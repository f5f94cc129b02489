"""Asynchronous client for the 13-endpoint face recognition API."""
