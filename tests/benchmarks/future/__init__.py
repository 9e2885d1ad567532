"""How much of the regret lies in the future, and what ways of foreseeing it are worth."""
