"""`deploy/kubernetes/try`, with recording stand-ins for the programs that it drives: no cluster can be made here."""
