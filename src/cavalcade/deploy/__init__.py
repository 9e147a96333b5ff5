"""Files for the tools around a server: service managers, orchestrators, proxies. What must agree between them and the server is
computed once, in `plan.py`, from the server's own settings."""
