"""What KEDA and HPA ask for and are answered: metrics, identities, HPA's formula, and HPAs that lose steps. Pure."""
