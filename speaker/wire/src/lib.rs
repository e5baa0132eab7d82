//! ARP and NDP codecs over pnet's packet module.
