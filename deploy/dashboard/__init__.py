"""The dashboard: a web page of a running bus, in plain JavaScript modules without a build step; steers only by token.

``document`` and its neighbours are pure: from a ``SiteView`` and an instant to the parts that the page shows, in the
words of ``wattscale status`` and ``explain``. ``feed`` follows the bus and numbers the changes; ``page_server`` serves
them, and answers about the past within `past_reads`. Publishes nothing and needs no more than an observer's rights, but
for `steering`, which gives commands for the holders of tokens.
"""
