import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Collection;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * TLS listeners of the JDK, one for each line of the file that is named: a folder with `chain` and `key` (DER) and, where
 * client certificates are wanted, `clients`; protocols; suites, or `-`; and the port behind it, to which goes what it hears.
 * Prints the port of each in its order.
 */
public final class TlsListeners {
    private static final char[] PASSWORD = "changeit".toCharArray();

    public static void main(String[] args) throws Exception {
        // What the JDK has switched off is what is to be shown.
        Security.setProperty("jdk.tls.disabledAlgorithms", "");
        Security.setProperty("jdk.certpath.disabledAlgorithms", "");
        for (String line : Files.readAllLines(Path.of(args[0]))) {
            String[] words = line.split("\t");
            Path folder = Path.of(words[0]);
            SSLContext context = context(folder);
            ServerSocket listener = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
            boolean wantsClients = Files.exists(folder.resolve("clients"));
            int behind = Integer.parseInt(words[3]);
            start(() -> {
                while (true) {
                    Socket socket = listener.accept();
                    start(() -> serve(context, socket, words[1], words[2], wantsClients, behind));
                }
            });
            System.out.println(listener.getLocalPort());
        }
        System.out.println("ready");
        Thread.currentThread().join();
    }

    private static void serve(SSLContext context, Socket socket, String protocols, String suites, boolean wantsClients,
            int behind) throws Exception {
        SSLSocket tls = (SSLSocket) context.getSocketFactory().createSocket(socket, null, false);
        tls.setUseClientMode(false);
        tls.setEnabledProtocols(protocols.split(","));
        if (!suites.equals("-")) tls.setEnabledCipherSuites(suites.split(","));
        tls.setNeedClientAuth(wantsClients);
        try {
            tls.startHandshake();
        } catch (Exception refused) {
            // The alert is on its way: a close with bytes unread would overtake it.
            socket.shutdownOutput();
            socket.getInputStream().transferTo(OutputStream.nullOutputStream());
            socket.close();
            return;
        }
        try (Socket broker = new Socket("127.0.0.1", behind); tls) {
            start(() -> pump(broker.getInputStream(), tls.getOutputStream()));
            pump(tls.getInputStream(), broker.getOutputStream());
        }
        socket.close();
    }

    private static void pump(InputStream from, OutputStream to) throws Exception {
        byte[] bytes = new byte[8192];
        for (int length; (length = from.read(bytes)) > 0; to.flush()) to.write(bytes, 0, length);
    }

    private static SSLContext context(Path folder) throws Exception {
        Certificate[] chain = certificates(folder.resolve("chain")).toArray(new Certificate[0]);
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(null, PASSWORD);
        own.setKeyEntry("own", key(Files.readAllBytes(folder.resolve("key"))), PASSWORD, chain);
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(own, PASSWORD);
        TrustManagerFactory trust = null;
        if (Files.exists(folder.resolve("clients"))) {
            KeyStore clients = KeyStore.getInstance("PKCS12");
            clients.load(null, PASSWORD);
            for (Certificate ca : certificates(folder.resolve("clients"))) clients.setCertificateEntry("ca", ca);
            trust = TrustManagerFactory.getInstance("PKIX");
            trust.init(clients);
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust == null ? null : trust.getTrustManagers(), null);
        return context;
    }

    private static Collection<? extends Certificate> certificates(Path file) throws Exception {
        try (InputStream in = Files.newInputStream(file)) {
            return CertificateFactory.getInstance("X.509").generateCertificates(in);
        }
    }

    private static PrivateKey key(byte[] pkcs8) throws Exception {
        try {
            return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(pkcs8));
        } catch (InvalidKeySpecException notOne) {
            return KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(pkcs8));
        }
    }

    private interface Work {
        void run() throws Exception;
    }

    private static void start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Exception ended) {
                // A peer that leaves is no news.
            }
        });
        thread.setDaemon(true);
        thread.start();
    }
}
