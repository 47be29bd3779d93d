"""The life of builds: gates, promotion, verification, repair, removal."""
