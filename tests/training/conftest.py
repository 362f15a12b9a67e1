"""Programs that tests start in processes of their own hold no tests."""

collect_ignore_glob = ["many_processes.py", "moved_run.py", "*over_meshes.py"]
