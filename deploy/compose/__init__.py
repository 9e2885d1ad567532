"""The one composition room: settings are loaded here, and planner and agent processes are put together from them."""
