//! The formats of an export, and how the clients of each read it.

/// The format of an export. `--help` prints these comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum ExportForm {
    /// The Public-Key-Pins header (RFC 7469)
    Header,
    /// OkHttp's CertificatePinner, in Kotlin
    #[value(name = "okhttp")]
    OkHttp,
    /// Android's Network Security Config, in XML
    Android,
    /// NSPinnedDomains for the Info.plist of an iOS app
    Ios,
    /// TSKConfiguration for the Info.plist of an app with TrustKit
    #[value(name = "trustkit")]
    TrustKit,
    /// The argument of curl --pinnedpubkey
    Curl,
    /// verify_certificate_spki of Envoy, in YAML
    Envoy,
    /// DANE: TLSA 3 1 1 records for a zone file
    #[value(alias = "dane")]
    Tlsa,
    /// All DNS records of the site: HTTPS, CAA and TLSA, for a zone file
    Dns,
    /// Known keys for a Certificate Transparency monitor, one per line
    #[value(name = "certspotter")]
    CertSpotter,
    /// Known keys for SSLMate's Cert Spotter, one request body per line
    #[value(name = "sslmate")]
    SslMate,
    /// The header, as configuration of an nginx that serves the site
    Nginx,
    /// The header, as configuration of a Varnish behind the site's TLS
    #[value(alias = "varnish")]
    Vcl,
    /// All data of the export, in JSON
    Json,
}

/// The effect of an export without a backup on the clients that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutBackup {
    /// Clients reject the export itself.
    Useless,
    /// The first change of the key locks clients out until each of them has a new export.
    LocksOut,
    /// Clients take a new key as quickly as they took the old one.
    Warned,
}

impl ExportForm {
    /// Returns its name on the command line, in the ledger and in comments.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::OkHttp => "okhttp",
            Self::Android => "android",
            Self::Ios => "ios",
            Self::TrustKit => "trustkit",
            Self::Curl => "curl",
            Self::Envoy => "envoy",
            Self::Tlsa => "tlsa",
            Self::Dns => "dns",
            Self::CertSpotter => "certspotter",
            Self::SslMate => "sslmate",
            Self::Nginx => "nginx",
            Self::Vcl => "vcl",
            Self::Json => "json",
        }
    }

    /// `true` if its clients compare the leaf's key alone, so that no other certificate of the
    /// chain can match.
    ///
    /// * `curl`: the server's own certificate (CURLOPT_PINNEDPUBLICKEY; curl issues 1022 and 20538).
    /// * `tlsa`: certificate usage 3 is for the end entity's certificate (RFC 7671 section 5.1).
    /// * `ios`: NSPinnedLeafIdentities is for the leaf, as its name says; NSPinnedCAIdentities, which must match *as
    ///   well*, is left out.
    /// * `envoy`: "the SPKI of the presented certificate" (CertificateValidationContext); its validator is handed
    ///   the leaf.
    /// * `dns`: its TLSA records.
    /// * `certspotter`, `sslmate`: the logged certificate's own key.
    /// * `json`: its readers are unknown, and the stricter assumption locks nobody out.
    ///
    /// The others take any certificate of the verified chain: browsers that honoured the header (RFC 7469 section
    /// 2.6), OkHttp (CertificatePinner.check), Android (NetworkSecurityTrustManager.checkPins) and TrustKit
    /// (verifyPublicKeyPin).
    #[must_use]
    pub fn leaf_only(self) -> bool {
        match self {
            Self::Curl
            | Self::Tlsa
            | Self::Dns
            | Self::Ios
            | Self::Envoy
            | Self::CertSpotter
            | Self::SslMate
            | Self::Json => true,
            Self::Header | Self::Nginx | Self::Vcl | Self::OkHttp | Self::Android | Self::TrustKit => false,
        }
    }

    /// `true` if it is the header, which browsers no longer enforce.
    #[must_use]
    pub fn is_header(self) -> bool {
        matches!(self, Self::Header | Self::Nginx | Self::Vcl)
    }

    /// `true` if it ends on a date, without a time of day.
    #[must_use]
    pub fn ends_on_a_date(self) -> bool {
        matches!(self, Self::Android | Self::TrustKit)
    }

    /// Returns the effect of an export without a backup key.
    #[must_use]
    pub fn without_backup(self) -> WithoutBackup {
        match self {
            // RFC 7469 section 2.5: clients do not note such a header. TrustKit aborts an app with
            // fewer than two pins.
            Self::Header | Self::Nginx | Self::Vcl | Self::TrustKit => WithoutBackup::Useless,
            Self::OkHttp | Self::Android | Self::Ios | Self::Envoy => WithoutBackup::LocksOut,
            Self::Curl | Self::Tlsa | Self::Dns | Self::CertSpotter | Self::SslMate | Self::Json => {
                WithoutBackup::Warned
            }
        }
    }

    /// `true` if its clients can pin a host that is an IP address.
    pub(super) fn takes_addresses(self) -> bool {
        // TLSA records belong to names; TrustKit aborts on a host without a registered domain.
        !matches!(self, Self::Tlsa | Self::Dns | Self::TrustKit)
    }

    /// `true` if it has TLSA records.
    #[must_use]
    pub fn has_tlsa(self) -> bool {
        matches!(self, Self::Tlsa | Self::Dns)
    }

    /// `true` if its clients have no `*.example.com`: they get `example.com` and all names below
    /// it, which is more.
    #[must_use]
    pub fn widens_wildcards(self) -> bool {
        matches!(self, Self::Android | Self::Ios | Self::TrustKit)
    }
}
