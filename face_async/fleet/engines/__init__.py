"""What runs the parts of a run: processes of this machine, Dask and Ray, all as executors."""
