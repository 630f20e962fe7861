"""look after a store: check, info, split, merge, drop-labels, repair, calibrate"""
