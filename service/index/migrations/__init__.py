"""The steps from one shape of the database to the next; each file is one, `rNNNN`, in order.

A step that was published is never changed: databases are that have taken it. Steps are plain SQL,
run in one transaction with everything that comes before and after them at that start.
"""
