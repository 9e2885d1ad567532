"""The pure core of all connectors: (decision, what is observed) to actions and acknowledgements.

A connector's shell does the input and output, and calls in this order:

1. At the start, `acknowledging.restored` with the newest stored acknowledgement, then `receive` with the newest stored
   decision: a connector keeps nothing of its own.
2. For each delivered decision `acknowledging.receive`; for each observation `counts.compare` (workers that can be
   counted) or a `ScalingProgress` of the connector's own, and then `acknowledging.report`.
3. It stores the acknowledgements in their order, and carries out the actions. Each action states a count, not a change,
   so that a crash before, between or after them is repaired by the next observation.

It holds that every decision is either completed, or superseded, or refused with a reason; that none is completed
twice; that a late completion of an older decision never completes a newer one; and that acknowledged ids rise in order.
"""
