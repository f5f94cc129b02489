"""The engine for many processes on many machines: PostgreSQL."""
