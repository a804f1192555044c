// Does nothing. A browser fetches a service worker only if it trusts the
// certificate by itself; a warning that somebody clicked away does not count.
