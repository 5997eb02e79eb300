"""`mneme compare-logs`: two logs of evaluations that were already run, paired item by item; nothing is run again."""
