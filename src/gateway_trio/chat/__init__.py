"""`gateway-trio chat`: a person at a terminal, or a script behind a pipe, and a session of a gateway."""
