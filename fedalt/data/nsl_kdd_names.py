"""NSL-KDD's tables: its columns, its attacks by family, its published row counts.

The columns are those of KDD Cup 1999; the families follow Tavallaee, Bagheri, Lu and
Ghorbani, A detailed analysis of the KDD CUP 99 data set, CISDA 2009.
"""

from __future__ import annotations

COLUMNS: tuple[str, ...] = (
    *("duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land"),
    *("wrong_fragment", "urgent", "hot", "num_failed_logins", "logged_in", "num_compromised"),
    *("root_shell", "su_attempted", "num_root", "num_file_creations", "num_shells"),
    *("num_access_files", "num_outbound_cmds", "is_host_login", "is_guest_login", "count"),
    *("srv_count", "serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate"),
    *("same_srv_rate", "diff_srv_rate", "srv_diff_host_rate", "dst_host_count"),
    *("dst_host_srv_count", "dst_host_same_srv_rate", "dst_host_diff_srv_rate"),
    *("dst_host_same_src_port_rate", "dst_host_srv_diff_host_rate", "dst_host_serror_rate"),
    *("dst_host_srv_serror_rate", "dst_host_rerror_rate", "dst_host_srv_rerror_rate"),
    *("label", "difficulty"),
)

# Symbols and yes/no columns, which the federated PCA literature leaves out.
NOT_NUMERIC = (
    *("protocol_type", "service", "flag", "land"),
    *("logged_in", "is_host_login", "is_guest_login"),
)

FEATURES: tuple[str, ...] = tuple(name for name in COLUMNS[:41] if name not in NOT_NUMERIC)
"""The 34 numeric features, in file order."""

# Published tables differ on httptunnel and worm; this is the assignment behind the usual
# counts of KDDTest+ (dos 7 458, probe 2 421, r2l 2 754, u2r 200).
FAMILIES: dict[str, tuple[str, ...]] = {
    "normal": ("normal",),
    "dos": (
        *("apache2", "back", "land", "mailbomb", "neptune", "pod", "processtable", "smurf"),
        *("teardrop", "udpstorm"),
    ),
    "probe": ("ipsweep", "mscan", "nmap", "portsweep", "saint", "satan"),
    "r2l": (
        *("ftp_write", "guess_passwd", "imap", "multihop", "named", "phf", "sendmail"),
        *("snmpgetattack", "snmpguess", "spy", "warezclient", "warezmaster", "worm"),
        *("xlock", "xsnoop"),
    ),
    "u2r": (
        *(
            "buffer_overflow",
            "httptunnel",
            "loadmodule",
            "perl",
            "ps",
            "rootkit",
            "sqlattack",
            "xterm",
        ),
    ),
}
FAMILY_OF: dict[str, str] = {
    label: family for family, labels in FAMILIES.items() for label in labels
}

PUBLISHED_ROWS: dict[str, int] = {
    "KDDTrain+": 125_973,
    "KDDTrain+_20Percent": 25_192,
    "KDDTest+": 22_544,
    "KDDTest-21": 11_850,
}
