"""Building blocks of services: task groups whose parts never end unnoticed, periodic work, cancellation."""
