"""The contract on a real server: connect, provision, publish (fenced), consume (one loop), read, lead."""
