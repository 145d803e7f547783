"""The whole story on one machine, with embedded parts: what `lockgate demo` plays and the tests stage."""
