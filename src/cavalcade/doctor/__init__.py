"""`cavalcade doctor`: the app is started, measured and looked at, and what will hurt is said before it hurts.

`subject` starts it, `outline` reads its routes, `probe` and `client` send it requests, `verdicts` judges what they measured, `facts` and
`checks` look at the machine and the settings, `report` tells.
"""
