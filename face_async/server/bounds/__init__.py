"""What anybody may take of the server, whether a stranger or a client with a key: connections, and recognition."""
