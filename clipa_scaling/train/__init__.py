"""Everything that knows torch; nothing here imports pandas, scipy, matplotlib or submitit."""
