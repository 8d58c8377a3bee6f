"""DVC: pinned data, workspaces, cached stages and their locks."""
