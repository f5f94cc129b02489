"""How a request is read: its target, its origin, its body, and the parameters in it."""
