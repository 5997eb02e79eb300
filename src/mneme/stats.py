"""Statistics of change: clustered bootstrap, exact McNemar, Holm and Benjamini-Hochberg, normal tail. numpy only; seeds are arguments."""
