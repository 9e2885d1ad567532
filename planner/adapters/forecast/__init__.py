"""Heavy forecast models behind the core's ``PointModel``: each imports its library only when it is chosen."""
