"""`wattscale up --real-workers`: engine processes under HTTP load, on simulated GPUs that agents and engines share.

The workers are those of `wattscale connector local`; what is here stands in for the rest of a site: a front that
routes requests, the GPUs' driver, and the load. Must leave no process and no file behind.
"""
