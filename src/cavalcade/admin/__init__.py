"""What answers for a running server: status, health, events, a dashboard, and orders to it. Over a unix socket for its own user, and over
TCP where that is asked for (docs/admin.md)."""
