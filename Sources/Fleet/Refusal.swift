/// A job that is refused before anything is sent.
package struct Refusal: Error {
    package let code, message: String

    package init(code: String, _ message: String) { (self.code, self.message) = (code, message) }
}

/// The job's deadline passed before it was executed.
struct JobExpired: Error {}
