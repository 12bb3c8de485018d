internal import COpenSSL

/// The digests the exchanges sign with, by libcrypto. Keys and messages are bytes; nothing is kept.
package enum Signing {
    package enum Digest { case sha256, sha512 }

    package static func sha256(_ message: some Collection<UInt8>) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Int(SHA256_DIGEST_LENGTH)) { out, count in
            SHA256(Array(message), message.count, out.baseAddress)
            count = Int(SHA256_DIGEST_LENGTH)
        }
    }

    package static func hmac(
        _ digest: Digest, key: some Collection<UInt8>, _ message: some Collection<UInt8>
    ) -> [UInt8] {
        let (hash, key) = (digest == .sha256 ? EVP_sha256() : EVP_sha512(), Array(key))
        return [UInt8](unsafeUninitializedCapacity: Int(EVP_MAX_MD_SIZE)) { out, count in
            var length: UInt32 = 0
            HMAC(hash, key, Int32(key.count), Array(message), message.count, out.baseAddress, &length)
            count = Int(length)
        }
    }

    /// Lowercase hexadecimal, two digits a byte.
    package static func hex(_ bytes: some Collection<UInt8>) -> String {
        let digits = Array("0123456789abcdef")
        return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }
}
