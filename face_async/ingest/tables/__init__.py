"""Manifests, and what spreadsheets make of tables."""
